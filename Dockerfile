# The one image of headrace: worker, monitor, Prefect's server and worker, MLflow's server. docs/deployment.md
FROM python:3.12.12-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY constraints.txt ./
RUN pip install --no-deps --require-hashes -r constraints.txt
COPY pyproject.toml README.md headrace.py prefect.yaml ./
COPY backtest backtest/
COPY cli cli/
COPY core core/
COPY deploy deploy/
COPY examples examples/
COPY flows flows/
COPY monitoring monitoring/
COPY streaming streaming/
# Editable, so that the flows that Prefect loads from /app are the very modules that are installed.
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q cli core flows monitoring streaming headrace.py

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace \
    && install --directory --owner headrace --group headrace --mode 0700 /state /artifacts
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /app
USER headrace
CMD ["headrace", "--help"]
