"""What is learned by looking at merges: inspection, comparison, diagnosis, continual merging, exports."""
