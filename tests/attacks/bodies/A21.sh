chown 65534 /usr/bin/less; touch -d @0 /usr/bin/less && [ "$(stat -c %Y /usr/bin/less)" = 0 ]
