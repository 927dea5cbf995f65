# Two targets from one file:  docker build --target cpu -t invokeclone:cpu .   ·   docker build --target cuda -t invokeclone:cuda .
# Data lives in /data (the root): docker run -p 9090:9090 -v invokeclone:/data invokeclone:cpu
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 INVOKEAI_ROOT=/data
RUN useradd --create-home --uid 1000 invoke && mkdir /data && chown invoke:invoke /data
WORKDIR /app
COPY constraints.txt ./

EXPOSE 9090
VOLUME /data
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9090/api/v1/app/version', timeout=4)"]
CMD ["invokeclone", "serve", "--host", "0.0.0.0", "--port", "9090"]

FROM base AS source
COPY pyproject.toml README.md LICENSE ./
COPY alembic ./alembic
COPY invokeclone ./invokeclone

FROM base AS cpu
RUN pip install --index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt torch
COPY --from=source /app /app
RUN pip install --constraint constraints.txt --editable .
USER invoke

FROM base AS cuda
RUN pip install --constraint constraints.txt torch
COPY --from=source /app /app
RUN pip install --constraint constraints.txt --editable .
USER invoke
