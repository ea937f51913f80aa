"""thaw: fine-tune encoders, and choose what stays frozen."""
