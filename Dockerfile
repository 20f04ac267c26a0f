# The consortium's side: pages, log and federation server in one image. `docker build -t zegel .`
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY jobs jobs
COPY site_packages site_packages
COPY privacy privacy
COPY audit audit
COPY admin_api admin_api
# PIP_ARGS chooses where torch comes from: a CPU build is enough here, and much smaller.
ARG PIP_ARGS=
RUN python -m venv /opt/zegel \
 && /opt/zegel/bin/pip install --no-cache-dir ${PIP_ARGS} -c constraints.txt '.[consortium,postgresql]'

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 10001 zegel && install -d -o zegel -g zegel -m 0700 /consortium
COPY --from=build /opt/zegel /opt/zegel
ENV PATH=/opt/zegel/bin:$PATH PYTHONUNBUFFERED=1 ZEGEL_CONSORTIUM_HOME=/consortium
USER zegel
VOLUME /consortium
EXPOSE 8443 8002 8003
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
  ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8443/readyz', timeout=4)"]
ENTRYPOINT ["zegel"]
CMD ["consortium", "serve", "--host", "0.0.0.0", "--workers", "2"]
