"""From a trained model to figures."""
