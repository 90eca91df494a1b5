"""Tables, sentences and plots of evaluation results."""
