"""Tax providers' adapters against their own examples, their own libraries, and the sandbox's faces of them."""
