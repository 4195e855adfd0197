"""What a person looks at. A model first, then views."""
