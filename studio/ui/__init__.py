"""The web page: Gradio controls, and panels whose drawing lives in assets/live/*.js."""
