# Targets:  docker build --target cpu -t invokeclone:cpu .   ·   docker build --target cuda -t invokeclone:cuda .
# The root is the volume /data: docker run -p 9090:9090 -v invokeclone:/data invokeclone:cpu
# To include the libraries that node packs import: --build-arg EXTRAS=[nodes]   ·   Both targets as services: configs/compose.yaml
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY alembic ./alembic
COPY invokeclone ./invokeclone
RUN python -m pip wheel --no-cache-dir --disable-pip-version-check --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore INVOKEAI_ROOT=/data
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 invoke \
    && install --directory --owner=invoke --group=invoke --mode=700 /data
WORKDIR /home/invoke
COPY constraints.txt configs/lock.txt /opt/constraints/
ARG EXTRAS=""
EXPOSE 9090
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/health', timeout=4)"]
CMD ["invokeclone", "serve", "--host", "0.0.0.0", "--port", "9090"]

FROM base AS cpu
RUN python -m pip install --index-url https://download.pytorch.org/whl/cpu --constraint /opt/constraints/constraints.txt torch
COPY --from=wheel /wheels /opt/wheels
RUN python -m pip install --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint /opt/constraints/constraints.txt --constraint /opt/constraints/lock.txt "$(echo /opt/wheels/*.whl)${EXTRAS}"
USER invoke

FROM base AS cuda
RUN python -m pip install --constraint /opt/constraints/constraints.txt torch
COPY --from=wheel /wheels /opt/wheels
RUN python -m pip install \
    --constraint /opt/constraints/constraints.txt --constraint /opt/constraints/lock.txt "$(echo /opt/wheels/*.whl)${EXTRAS}"
USER invoke
