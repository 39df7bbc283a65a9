"""What a finished run is asked: predictions, evaluations, exports."""
