"""What happened before an impression: counters with decay, and the features made of them."""
