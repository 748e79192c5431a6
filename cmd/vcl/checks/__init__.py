"""What `vcl doctor` looks at: one function a question, each answering with findings and their cures."""
