# Groundcrew's daemon and command line. Build it with scripts/image, docker, podman or buildah;
# docs/image.md explains its use, docs/adr/0013-image.md its design.

# The tag is that of one day. For a digest or your own mirror: --build-arg BASE=…
ARG BASE=docker.io/library/debian:bookworm-20260824-slim

# ------------------------------------------------------------------------------------------ build
# /opt/groundcrew becomes a virtual environment without pip; nothing else leaves this stage.
# Settings of the build network are passed as secrets, which no layer keeps: all are optional.
FROM ${BASE} AS build

SHELL ["/bin/sh", "-eu", "-c"]

RUN --mount=type=secret,id=apt,mode=0444 --mount=type=secret,id=sources,mode=0444 \
    --mount=type=secret,id=ca,mode=0444 \
    export APT_CONFIG=/run/secrets/apt DEBIAN_FRONTEND=noninteractive; \
    apt-get update -qq; \
    apt-get install -y -qq --no-install-recommends \
        ca-certificates=20230311* \
        python3=3.11.* \
        python3-venv=3.11.*; \
    rm -rf /var/lib/apt/lists/*

COPY deploy/image/requirements.lock deploy/image/build.lock /src/
RUN --mount=type=secret,id=pip,mode=0444 --mount=type=secret,id=ca,mode=0444 \
    export PIP_CONFIG_FILE=/run/secrets/pip PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1; \
    export PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all: PIP_NO_COMPILE=1 PIP_QUIET=1; \
    python3 -m venv /opt/build; \
    /opt/build/bin/pip install -r /src/build.lock; \
    python3 -m venv --without-pip /opt/groundcrew; \
    /opt/build/bin/pip --python /opt/groundcrew/bin/python install -r /src/requirements.lock

COPY . /src
# kubernetes/aio is a second client, for asyncio: 68 MB that nothing here imports. Bytecode is
# never compared with its source: the file system is read-only, and a copy may have other dates.
RUN export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PIP_QUIET=1; \
    /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /src/wheels /src; \
    /opt/build/bin/pip --python /opt/groundcrew/bin/python \
        install --no-deps --no-compile /src/wheels/*.whl; \
    install -m 0644 /src/deploy/image/healthcheck.py /opt/groundcrew/healthcheck.py; \
    rm -r /opt/groundcrew/lib/python3.11/site-packages/kubernetes/aio; \
    /opt/groundcrew/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/groundcrew/lib

# ------------------------------------------------------------------------------------------ image
FROM ${BASE}

SHELL ["/bin/sh", "-eu", "-c"]

RUN --mount=type=secret,id=apt,mode=0444 --mount=type=secret,id=sources,mode=0444 \
    --mount=type=secret,id=ca,mode=0444 \
    export APT_CONFIG=/run/secrets/apt DEBIAN_FRONTEND=noninteractive; \
    apt-get update -qq; \
    apt-get install -y -qq --no-install-recommends \
        ca-certificates=20230311* \
        git=1:2.39.* \
        openssh-client=1:9.2p1-* \
        python3=3.11.*; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt \
        /var/log/*.log; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +; \
    useradd --no-log-init --uid 50000 --gid 0 --no-create-home \
        --home-dir /var/lib/groundcrew --shell /usr/sbin/nologin groundcrew; \
    rm -f /etc/*-; \
    install -d -o 50000 -g 0 -m 0770 /var/lib/groundcrew; \
    install -d -o 50000 -g 0 -m 0775 /srv/groundcrew; \
    install -d /etc/groundcrew /etc/groundcrew/secrets

COPY --from=build /opt/groundcrew /opt/groundcrew

# The health check uses this address and port.
ENV PATH=/opt/groundcrew/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/var/lib/groundcrew \
    GROUNDCREW_HTTP__HOST=0.0.0.0 \
    GROUNDCREW_HTTP__PORT=8085

LABEL org.opencontainers.image.title="groundcrew" \
      org.opencontainers.image.description="Gives every Airflow instance the Python packages its team needs, without rebuilding an image." \
      org.opencontainers.image.licenses="Apache-2.0"

USER 50000:0
WORKDIR /var/lib/groundcrew
VOLUME ["/var/lib/groundcrew", "/srv/groundcrew", "/tmp"]
EXPOSE 8085
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "/opt/groundcrew/healthcheck.py"]
ENTRYPOINT ["groundcrew"]
CMD ["run"]
