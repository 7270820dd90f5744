undo 'mount -o remount,bind,noexec /var'; mount -o remount,bind,exec /var; evil /var; ran "$($evil hello)"
