/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The kernel's interface as far as the guard uses it: the fields that it reads, and no others. The
 * compiler notes each access to a field (CO-RE), and the agent fills in the offset from
 * /sys/kernel/btf/vmlinux before it loads the program. Numbers are user space ABI or have been the
 * same since before Linux 5.10; comments name their headers. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct list_head { struct list_head *next; };
struct atomic { int counter; };
struct refcount { struct atomic refs; };
struct ns_common {
	u32 inum;
	struct refcount count;
};
struct mnt_namespace { struct ns_common ns; };
struct user_namespace { int level; };
struct kuid { u32 val; };
struct cred {
	struct kuid uid, euid;
	u64 cap_permitted, cap_effective; /* Linux 6.1 has two 32-bit halves here, the lower one first */
	struct user_namespace *user_ns;
};
struct kernfs_node {
	const char *name;
	void *priv;
};
struct cgroup_subsys_state { struct cgroup_subsys_state *parent; };
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	int nr_populated_csets, nr_populated_domain_children, nr_populated_threaded_children;
};
struct css_set { struct cgroup *dfl_cgrp; };
struct sock { u16 sk_protocol; };
struct nsproxy { struct mnt_namespace *mnt_ns; };
struct file_system_type { const char *name; };
struct block_device { u32 bd_dev; };
struct super_block {
	struct dentry *s_root;
	u32 s_dev;
	unsigned long s_flags;
	struct file_system_type *s_type;
	unsigned long s_magic;
	struct block_device *s_bdev;
};
struct inode {
	u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_rdev;
	void *i_private;
};
struct qstr {
	u32 len;
	const char *name;
};
struct dentry {
	u32 d_flags;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};
struct vfsmount {
	struct super_block *mnt_sb;
	int mnt_flags;
};
struct mount {
	int mnt_id;
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_share;
	struct list_head mnt_slave_list;
	struct mnt_namespace *mnt_ns;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct fs_struct { struct path root; };
struct file {
	struct path f_path;
	struct inode *f_inode;
	u32 f_flags;
	u32 f_mode;
};
struct anon_vma;
struct vm_area_struct {
	struct anon_vma *anon_vma;
	struct file *vm_file;
};
struct mm_struct { struct file *exe_file; };
struct upid { int nr; };
struct hlist_node { struct hlist_node *next; };
struct hlist_head { struct hlist_node *first; };
struct pid {
	struct hlist_head tasks[4];
	struct upid numbers[1];
};
struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};
struct signal_struct { struct pid *pids[4]; };
struct task_struct {
	u32 flags;
	struct mm_struct *mm;
	u32 personality;
	int tgid;
	struct task_struct *real_parent;
	char comm[16];
	struct cred *cred;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct hlist_node pid_links[4];
	struct css_set *cgroups;
};
struct pt_regs { unsigned long orig_ax; };
struct linux_binprm { struct file *file; };
struct timespec64 { s64 tv_sec; };
struct io_uring_cmd { struct file *file; };
struct bpf_map { char name[16]; };
struct bpf_prog_aux { char name[16]; };
struct bpf_prog { struct bpf_prog_aux *aux; };
#pragma clang attribute pop

/* <linux/bpf.h>, enum bpf_func_id */
static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static void *(*const bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static u64 (*const bpf_get_current_uid_gid)(void) = (void *)15;
static void *(*const bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

#define EPERM 1
#define ENOSYS 38
/* <linux/prctl.h> */
#define PR_SET_MM 35
#define PR_SET_MM_EXE_FILE 13
#define PR_SET_MM_MAP 14
/* <linux/capability.h>, arch/x86/entry/syscalls/syscall_64.tbl and its bit for x32 */
#define CAP_LINUX_IMMUTABLE 9
#define CAP_SYS_MODULE 16
#define CAP_SYS_TIME 25
#define CAP_SYS_ADMIN 21
#define NR_MOUNT_SETATTR 442
#define NR_SETTIMEOFDAY 164
#define NR_CLOCK_SETTIME 227
#define NR_INIT_MODULE 175
#define NR_INIT_MODULE_32 128
#define NR_FINIT_MODULE 313
#define NR_FINIT_MODULE_32 350
#define X32_SYSCALL_BIT 0x40000000
/* <linux/sched.h>, include/linux/sched.h */
#define CLONE_INTO_CGROUP 0x200000000ull
#define PF_KTHREAD 0x00200000
/* <linux/netlink.h> */
#define NETLINK_KOBJECT_UEVENT 15
/* include/linux/kernel_read_file.h. Its other values mean modules and kernels. */
#define READING_FIRMWARE 1
#define READING_POLICY 5
#define READING_X509_CERTIFICATE 6
/* <linux/mman.h>, <linux/personality.h>, <linux/mount.h>, <linux/stat.h>, fs.h */
#define PROT_WRITE 2
#define PROT_EXEC 4
#define READ_IMPLIES_EXEC 0x0400000
#define SB_RDONLY 1
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_MOVE 8192
#define MS_PROPAGATION (15 << 17)
#define MNT_SHARED 0x1000
/* include/linux/dcache.h: the entry is a mount point in some namespace */
#define DCACHE_MOUNTED 0x10000
#define S_IFMT 0170000
#define S_IFBLK 0060000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define S_IFREG 0100000
#define FMODE_READ 1
#define FMODE_WRITE 2
#define FMODE_EXEC 0x20
#define O_NONBLOCK 04000
#define O_EXCL 0200
#define O_CREAT 0100
#define O_TRUNC 01000
/* Without the bit of O_DIRECTORY, which is part of the header's constant. */
#define O_TMPFILE 020000000
#define PTRACE_MODE_ATTACH 2
/* <linux/magic.h> */
#define PROC_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define EFIVARFS_MAGIC 0xde5e81e4
#define CGROUP_MAGIC 0x27e0eb
#define PIPEFS_MAGIC 0x50495045
#define CGROUP2_MAGIC 0x63677270
#define DEBUGFS_MAGIC 0x64626720
#define CONFIGFS_MAGIC 0x62656570
#define TRACEFS_MAGIC 0x74726163
#define BINFMT_MAGIC 0x42494e4d
#define OVERLAYFS_MAGIC 0x794c7630
#define AUTOFS_MAGIC 0x0187
#define FUSE_MAGIC 0x65735546
#define SECURITYFS_MAGIC 0x73636673
#define RAMFS_MAGIC 0x858458f6
#define TMPFS_MAGIC 0x01021994
#define NSFS_MAGIC 0x6e736673
/* include/linux/kdev_t.h: the kernel's encoding of a device number */
#define DEVICE(major, minor) ((major) << 20 | (minor))
/* Documentation/admin-guide/devices.txt; for the controllers drivers/scsi/mpt3sas/mpt3sas_ctl.h */
#define KERNEL_LOG DEVICE(1, 11)
#define FIRMWARE_MEMORY DEVICE(10, 144)
#define FIRST_WATCHDOG DEVICE(10, 130)
#define TTY_MAJOR 5
#define SG_MAJOR 21
#define MTD_MAJOR 90
#define USB_MAJOR 189
#define CONTROL_OF_MPT2 DEVICE(10, 221)
#define CONTROL_OF_MPT3 DEVICE(10, 222)
/* enum pid_type */
#define PIDTYPE_SID 3

/* Reads a field through a pointer that the verifier does not know. */
#define READ(pointer, field) ({ \
	typeof((pointer)->field) value_ = 0; \
	bpf_probe_read_kernel(&value_, sizeof(value_), __builtin_preserve_access_index(&(pointer)->field)); \
	value_; })
/* The structure that contains this field (container_of). */
#define AROUND(pointer, type, field) \
	((type *)((u64)(pointer) - (u64)__builtin_preserve_access_index(&((type *)0)->field)))
