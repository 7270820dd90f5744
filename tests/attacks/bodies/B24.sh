need systemd-sysext
undo 'systemd-sysext unmerge; rm -rf /var/lib/extensions'; mkdir -p /var/lib/extensions/evil/usr/lib/extension-release.d /var/lib/extensions/evil/usr/share/evil
printf 'ID=_any\n' >/var/lib/extensions/evil/usr/lib/extension-release.d/extension-release.evil
systemd-sysext merge; host test -d /usr/share/evil
