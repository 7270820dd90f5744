need systemd-sysext; . /etc/os-release
undo 'systemd-sysext unmerge; rm -rf /run/extensions'; mkdir -p /run/extensions/evil/usr/lib/extension-release.d /run/extensions/evil/usr/share/evil
printf 'ID=_any\n' >/run/extensions/evil/usr/lib/extension-release.d/extension-release.evil
systemd-sysext merge; host test -d /usr/share/evil
