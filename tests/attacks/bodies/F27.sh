lives; timeout 5 systemctl kill -s SEGV init.scope; sleep 3; ! timeout 5 systemctl is-active -q multi-user.target
