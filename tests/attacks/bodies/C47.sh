modprobe nvme-fabrics 2>/dev/null; need /dev/nvme-fabrics; echo 'transport=loop,nqn=evil' >/dev/nvme-fabrics
