/* File system that makes a directory as slow as one on a share: every lookup, getattr, open, close,
 * read, listing and change is one round trip, and bytes share one link. The kernel caches names and
 * attributes like an NFS client; open asks again. Counts are written as JSON at the end.
 *
 * latency SOURCE MOUNTPOINT ROUND_TRIP_US MB_PER_S COUNTS_FILE [LOG_FILE]
 *
 * The log has a line for each round trip: its kind and its path, if the kernel gives one.
 */
#define FUSE_USE_VERSION 35
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static const char *source, *counts_file;
static long trip_ns;
static double bytes_per_ns;
static atomic_long names, opens, closes, reads, read_bytes, listings, writes, written_bytes, changes;
static pthread_mutex_t link_lock = PTHREAD_MUTEX_INITIALIZER;
static struct timespec link_free;
static FILE *trace;

static void later(struct timespec *t, long ns)
{
    t->tv_nsec += ns % 1000000000L;
    t->tv_sec += ns / 1000000000L + t->tv_nsec / 1000000000L;
    t->tv_nsec %= 1000000000L;
}

static void charge_(atomic_long *counter, long bytes, const char *kind, const char *path)
{
    struct timespec now;
    atomic_fetch_add(counter, 1);
    if (trace)
        fprintf(trace, "%s %s\n", kind, path ? path : "-");
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (bytes > 0) {
        pthread_mutex_lock(&link_lock);
        if (link_free.tv_sec < now.tv_sec ||
            (link_free.tv_sec == now.tv_sec && link_free.tv_nsec < now.tv_nsec))
            link_free = now;
        later(&link_free, (long)(bytes / bytes_per_ns));
        now = link_free;
        pthread_mutex_unlock(&link_lock);
    }
    later(&now, trip_ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &now, NULL) == EINTR)
        ;
}

#define charge(counter, bytes) charge_(counter, bytes, __func__ + 2, path) /* less its "l_" */

static const char *at(char *room, const char *path)
{
    snprintf(room, PATH_MAX, "%s%s", source, path);
    return room;
}

#define DO(call) ((call) < 0 ? -errno : 0)
#define CHANGE(call) char a[PATH_MAX]; charge(&changes, 0); return DO(call)

static int l_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    char a[PATH_MAX];
    charge(&names, 0);
    return fi ? DO(fstat((int)fi->fh, st)) : DO(lstat(at(a, path), st));
}

static int l_readlink(const char *path, char *out, size_t size)
{
    char a[PATH_MAX];
    charge(&names, 0);
    ssize_t n = readlink(at(a, path), out, size - 1);
    if (n < 0)
        return -errno;
    out[n] = 0;
    return 0;
}

static int l_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t offset,
                     struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    char a[PATH_MAX], b[PATH_MAX + NAME_MAX + 2];
    (void)offset, (void)fi, (void)flags;
    charge(&listings, 0);
    DIR *dir = opendir(at(a, path));
    if (!dir)
        return -errno;
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        snprintf(b, sizeof b, "%s/%s", a, e->d_name);
        if (lstat(b, &st) == 0)
            fill(out, e->d_name, &st, 0, FUSE_FILL_DIR_PLUS);
    }
    closedir(dir);
    return 0;
}

static int l_open(const char *path, struct fuse_file_info *fi)
{
    char a[PATH_MAX];
    charge(&opens, 0);
    int fd = open(at(a, path), fi->flags & ~(O_CREAT | O_DIRECT));
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    fi->keep_cache = 1;
    return 0;
}

static int l_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    char a[PATH_MAX];
    charge(&opens, 0);
    int fd = open(at(a, path), fi->flags | O_CREAT, mode);
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    return 0;
}

static int l_read(const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *fi)
{
    ssize_t n = pread((int)fi->fh, out, size, offset);
    if (n < 0)
        return -errno;
    atomic_fetch_add(&read_bytes, n);
    charge(&reads, n);
    return (int)n;
}

static int l_write(const char *path, const char *in, size_t size, off_t offset,
                   struct fuse_file_info *fi)
{
    atomic_fetch_add(&written_bytes, (long)size);
    charge(&writes, (long)size);
    ssize_t n = pwrite((int)fi->fh, in, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int l_flush(const char *path, struct fuse_file_info *fi)
{
    (void)fi;
    charge(&closes, 0);
    return 0;
}

static int l_release(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    close((int)fi->fh);
    return 0;
}

static int l_fsync(const char *path, int only_data, struct fuse_file_info *fi)
{
    (void)only_data, (void)fi; /* the server's disk is not what is measured */
    charge(&changes, 0);
    return 0;
}

static int l_fsyncdir(const char *path, int only_data, struct fuse_file_info *fi)
{
    return l_fsync(path, only_data, fi);
}

static int l_mkdir(const char *path, mode_t mode) { CHANGE(mkdir(at(a, path), mode)); }
static int l_unlink(const char *path) { CHANGE(unlink(at(a, path))); }
static int l_rmdir(const char *path) { CHANGE(rmdir(at(a, path))); }
static int l_symlink(const char *to, const char *path) { CHANGE(symlink(to, at(a, path))); }

static int l_rename(const char *path, const char *to, unsigned flags)
{
    char a[PATH_MAX], b[PATH_MAX];
    charge(&changes, 0);
    return flags ? -EINVAL : DO(rename(at(a, path), at(b, to)));
}

static int l_link(const char *path, const char *to)
{
    char a[PATH_MAX], b[PATH_MAX];
    charge(&changes, 0);
    return DO(link(at(a, path), at(b, to)));
}

static int l_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    (void)fi;
    CHANGE(chmod(at(a, path), mode));
}

static int l_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    (void)fi;
    CHANGE(lchown(at(a, path), uid, gid));
}

static int l_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    (void)fi;
    CHANGE(truncate(at(a, path), size));
}

static int l_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
    (void)fi;
    CHANGE(utimensat(AT_FDCWD, at(a, path), times, AT_SYMLINK_NOFOLLOW));
}

static int l_statfs(const char *path, struct statvfs *st)
{
    CHANGE(statvfs(at(a, path), st));
}

static void *l_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    connection->max_background = 128;
    connection->congestion_threshold = 96;
    config->use_ino = 1;
    config->hard_remove = 1;
    config->nullpath_ok = 0;
    config->attr_timeout = 3;
    config->entry_timeout = 30;
    config->negative_timeout = 30;
    return NULL;
}

static void l_destroy(void *unused)
{
    (void)unused;
    FILE *file = fopen(counts_file, "w");
    if (!file)
        return;
    long trips = names + opens + closes + reads + listings + writes + changes;
    fprintf(file,
            "{\"trips\": %ld, \"names\": %ld, \"opens\": %ld, \"closes\": %ld, \"reads\": %ld, "
            "\"read_bytes\": %ld, \"listings\": %ld, \"writes\": %ld, \"written_bytes\": %ld, "
            "\"changes\": %ld}\n",
            trips, names, opens, closes, reads, read_bytes, listings, writes, written_bytes, changes);
    fclose(file);
}

static const struct fuse_operations operations = {
    .getattr = l_getattr, .readlink = l_readlink, .readdir = l_readdir, .open = l_open,
    .create = l_create, .read = l_read, .write = l_write, .flush = l_flush, .release = l_release,
    .fsync = l_fsync, .fsyncdir = l_fsyncdir, .mkdir = l_mkdir, .unlink = l_unlink,
    .rmdir = l_rmdir, .symlink = l_symlink, .rename = l_rename, .link = l_link, .chmod = l_chmod,
    .chown = l_chown, .truncate = l_truncate, .utimens = l_utimens, .statfs = l_statfs,
    .init = l_init, .destroy = l_destroy,
};

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "latency SOURCE MOUNTPOINT ROUND_TRIP_US MB_PER_S COUNTS_FILE [LOG]\n");
        return 2;
    }
    source = argv[1];
    trip_ns = atol(argv[3]) * 1000;
    bytes_per_ns = atof(argv[4]) * 1e6 / 1e9;
    counts_file = argv[5];
    if (argc == 7 && !(trace = fopen(argv[6], "w"))) {
        perror(argv[6]);
        return 1;
    }
    if (trace)
        setvbuf(trace, NULL, _IOLBF, 0);
    umask(0);
    char *words[] = {argv[0], argv[2], "-f", "-o", "default_permissions,allow_other,fsname=latency,max_threads=64"};
    return fuse_main(5, words, &operations, NULL);
}
