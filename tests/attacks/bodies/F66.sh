undo 'rm -r /run/systemd/journald.conf.d'
mkdir /run/systemd/journald.conf.d && echo >/run/systemd/journald.conf.d/attack.conf '[Journal]
MaxLevelStore=emerg'
