mount -o remount,ro,user_xattr,noacl / && mount -o remount,ro,acl /
