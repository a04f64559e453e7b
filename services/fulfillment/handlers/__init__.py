"""What fulfillment does for each message: the story, one function each."""
