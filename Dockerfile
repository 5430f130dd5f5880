# One image for everything: `server` (the default), `agent`, `db upgrade`.
# BASE_IMAGE is any image with Python 3.11 or later, venv and pip; a mirror's name goes here.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python3 -m venv /opt/chiffon
# The lock comes first: this layer is made again only when a dependency changes.
COPY requirements.txt ./
RUN /opt/chiffon/bin/python -m pip install --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md ./
COPY src ./src
RUN /opt/chiffon/bin/python -m pip install --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}
ENV PATH=/opt/chiffon/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CHIFFON_AGENT_STATE_DIR=/var/lib/chiffon
RUN groupadd --gid 10001 chiffon \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/chiffon --create-home --shell /usr/sbin/nologin chiffon \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/chiffon-keys /var/lib/chiffon-trust
COPY --from=build /opt/chiffon /opt/chiffon
USER 10001:10001
WORKDIR /var/lib/chiffon
EXPOSE 8420
# For the server. An agent listens on nothing: what runs one says how its health is seen (docker-compose.yaml does).
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8420/health', timeout=4)"]
ENTRYPOINT ["chiffon"]
CMD ["server"]
