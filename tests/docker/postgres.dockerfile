# Stands in for the registry's postgres:15-bookworm: Debian's own PostgreSQL behind the part of that
# image's interface which deploy/docker-compose.yml uses.
FROM debian:bookworm-slim
RUN groupadd -r postgres --gid=999 \
    && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql --shell=/bin/bash postgres \
    && apt-get update -q \
    && apt-get install -y -q --no-install-recommends postgresql-common \
    && sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf \
    && apt-get install -y -q --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/*
ENV PGDATA=/var/lib/postgresql/data LANG=C.UTF-8 PATH=$PATH:/usr/lib/postgresql/15/bin
RUN mkdir /docker-entrypoint-initdb.d \
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
    && install -d -o postgres -g postgres -m 1777 "$PGDATA"
VOLUME /var/lib/postgresql/data
COPY postgres-entrypoint /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
CMD ["postgres"]
