"""The paper's tables and figures: declarations of each, and the code that runs and shows them."""
