# syntax=docker/dockerfile:1
# docker build --target train .    jobs and scheduler; with --build-arg REQUIREMENTS=requirements_gpu.lock, for NVIDIA GPUs
# docker build --target api .      the service, without TensorFlow

FROM golang:1.26.8-trixie AS supercronic
RUN CGO_ENABLED=0 go install github.com/aptible/supercronic@v0.2.48

FROM python:3.13.11-slim-trixie AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_ROOT_USER_ACTION=ignore
# glibc keeps what each thread has freed for that thread: without a limit, a third more memory after some epochs.
ENV MALLOC_ARENA_MAX=2
WORKDIR /app
# Owned by the account: Weights & Biases' offline runs go there.
RUN useradd --create-home --uid 10001 nrms && install --directory --owner nrms runs

FROM base AS api
COPY requirements_api.lock ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --disable-pip-version-check --require-hashes --requirement requirements_api.lock
COPY nrms nrms
COPY api api
USER 10001
ENV HOST=0.0.0.0
EXPOSE 8000
# The slim image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["python", "-m", "api"]

FROM base AS train
ARG REQUIREMENTS=requirements.lock
COPY requirements.lock requirements_gpu.lock ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --disable-pip-version-check --require-hashes --requirement "${REQUIREMENTS}"
COPY --from=supercronic /go/bin/supercronic /usr/local/bin/supercronic
COPY nrms nrms
COPY jobs jobs
COPY configs configs
USER 10001
# A job ends; what watches it is its exit code. The scheduler's check is in docker-compose.yaml.
HEALTHCHECK NONE
CMD ["python", "-m", "jobs.train", "--help"]
