"""What is known of the models of all branches."""
