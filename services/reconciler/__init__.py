"""The reconciler: proves that our books and the providers' agree, and says where they do not."""
