"""The dashboard's shared parts: the only package, besides app.py and pages/, that imports Streamlit."""
