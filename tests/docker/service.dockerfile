# A small Debian server with systemd and PostgreSQL, on which deploy/duragate.service is installed
# as its own header says.
FROM duragate
USER root
RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends systemd dbus procps postgresql \
    && rm -rf /var/lib/apt/lists/* /var/lib/duragate /etc/duragate \
    && userdel duragate \
    && systemctl mask getty-static.service console-getty.service systemd-logind.service
COPY deploy/duragate.yaml deploy/duragate.service /usr/src/
COPY tests/docker/service-boot /usr/local/sbin/
HEALTHCHECK NONE
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["service-boot"]
CMD []
