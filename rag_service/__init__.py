"""RAG as a service: the retrieval backend a platform team runs once for all its product teams."""

__version__ = "0.1.0"
