driver nvme-fabrics /dev/nvme-fabrics; echo 'transport=loop,nqn=evil' >/dev/nvme-fabrics
