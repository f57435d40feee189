# Stand-in for quay.io/argoproj/argocd: the same program under its names, git, Helm and Kustomize; no web interface.
ARG BASE
FROM ${BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git gpg gpg-agent tini openssh-client && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 999 argocd && useradd --uid 999 --gid argocd --create-home argocd \
    && mkdir -p /app/config/ssh /app/config/tls /app/config/gpg/source /app/config/gpg/keys \
    && touch /app/config/ssh/ssh_known_hosts && ln -s /app/config/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts \
    && chown -R argocd:0 /app/config/gpg/keys /home/argocd && chmod 0700 /app/config/gpg/keys
COPY bin /usr/local/bin
RUN for name in server repo-server cmp-server application-controller dex notifications applicationset-controller k8s-auth commit-server; \
    do ln -s /usr/local/bin/argocd "/usr/local/bin/argocd-$name"; done \
    && printf '#!/bin/sh\nexec "$@"\n' > /usr/local/bin/entrypoint.sh \
    && printf '#!/bin/sh\noutput=$(gpg "$@" 2>&1) || true\necho "$output"\n' > /usr/local/bin/gpg-wrapper.sh \
    && chmod 0755 /usr/local/bin/*.sh
USER 999
WORKDIR /home/argocd
ENTRYPOINT ["/usr/bin/tini", "--"]
