/* A guest in somebody's process: forks, daemons, signals, descriptors. */
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_event(const bruit_event *event, void *user) {
    (void)event;
    (void)user;
}

static void forked(bruit_node *node) {
    char buf[300];
    size_t len;
    uint64_t number;
    bruit_members *members = NULL;
    const bruit_event *event = NULL;
    const char *address = "127.0.0.1:1";
    bruit_kv change = {sizeof change, "role", "db", 2};
    bruit_stats stats;
    stats.size = sizeof stats;

    EQ(bruit_node_start(node), BRUIT_E_FORKED);
    EQ(bruit_node_join(node, &address, 1, -1), BRUIT_E_FORKED);
    EQ(bruit_node_leave(node, -1), BRUIT_E_FORKED);
    EQ(bruit_node_stop(node, -1), BRUIT_E_FORKED);
    EQ(bruit_node_state(node), BRUIT_E_FORKED);
    EQ(bruit_node_name(node, buf, sizeof buf, &len), BRUIT_E_FORKED);
    EQ(bruit_node_address(node, buf, sizeof buf, &len), BRUIT_E_FORKED);
    EQ(bruit_node_set(node, "gossip_fanout", "3"), BRUIT_E_FORKED);
    EQ(bruit_node_set_meta(node, &change, 1), BRUIT_E_FORKED);
    EQ(bruit_node_on_event(node, BRUIT_EVENT_ALL, on_event, NULL, NULL, NULL), BRUIT_E_FORKED);
    EQ(bruit_node_unsubscribe(node, 1), BRUIT_E_FORKED);
    EQ(bruit_node_event_fd(node), BRUIT_E_FORKED);
    EQ(bruit_node_dispatch(node, 0), BRUIT_E_FORKED);
    EQ(bruit_node_wait(node, -1), BRUIT_E_FORKED);
    EQ(bruit_node_wakeup(node), BRUIT_E_FORKED);
    EQ(bruit_node_next_event(node, &event), BRUIT_E_FORKED);
    EQ(bruit_node_members(node, &members), BRUIT_E_FORKED);
    EQ(bruit_node_view(node), 0);
    EQ(bruit_node_stats(node, &stats), BRUIT_E_FORKED);
    EQ(bruit_node_stat(node, "packets_in", &number), BRUIT_E_FORKED);
    EQ(bruit_node_free(node), BRUIT_E_FORKED);
    EQ(bruit_node_release(node), BRUIT_E_FORKED);
    CHECK(members == NULL && event == NULL);
}

static void passed(pid_t child) {
    int status = 0;
    EQ(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("the child ended with status %#x", status);
}

void test_forked_child(void) {
    int hold[2];
    char address[64];
    bruit_members *members = NULL;
    bruit_config *config = test_config("made before", "thread"), *shares = test_config("shares", "thread");
    bruit_node *made = test_node("made", "manual"), *made_to_share = NULL;
    bruit_node *node = test_started("parent", "manual"), *threaded = NULL;
    bruit_runtime *runtime = NULL;
    OK(bruit_runtime_new(&runtime));
    OK(bruit_config_set_runtime(shares, runtime));
    OK(bruit_node_new(shares, &made_to_share));
    OK(bruit_node_new(shares, &threaded));
    OK(bruit_node_start(threaded));
    test_join(node, threaded);
    OK(bruit_node_members(node, &members));
    OK(bruit_node_address(node, address, sizeof address, NULL));
    CHECK(pipe(hold) == 0);

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char end;
        alarm(300);
        close(hold[1]);
        forked(node);
        forked(threaded);
        CHECK(bruit_members_len(members) >= 1); /* a snapshot is memory, nothing more */
        STREQ(bruit_members_local(members)->name, "parent");
        /* What was not started yet can be used, and a node of one's own. */
        OK(bruit_node_start(made));
        bruit_node *own = NULL;
        OK(bruit_node_new(config, &own));
        OK(bruit_node_start(own));
        test_join(own, made);
        OK(bruit_node_free(own));
        OK(bruit_node_free(made));
        /* A runtime that runs in the parent does not run here. */
        EQ(bruit_node_start(made_to_share), BRUIT_E_FORKED);
        EQ(bruit_node_new(shares, &own), BRUIT_E_FORKED);
        CHECK(read(hold[0], &end, 1) == 0); /* lives until the parent has looked */
        _exit(0);
    }
    close(hold[0]);

    /* The parent's node works on, and the child does not hold its port. */
    EQ(bruit_node_state(node), BRUIT_NODE_RUNNING);
    CHECK(bruit_node_view(node) > 0);
    OK(bruit_node_free(node));
    OK(bruit_config_set(config, "bind", address));
    OK(bruit_node_new(config, &node));
    EVENTUALLY(bruit_node_start(node) == BRUIT_OK); /* the child closes it when it first runs */
    close(hold[1]);
    passed(child);

    OK(bruit_node_free(node));
    OK(bruit_node_free(threaded));
    OK(bruit_node_free(made));
    OK(bruit_node_free(made_to_share));
    OK(bruit_runtime_free(runtime));
    OK(bruit_config_free(config));
    OK(bruit_config_free(shares));
    bruit_members_free(members);
}

/* new, daemon(), start: as services do. */
void test_daemons(void) {
    int result[2];
    CHECK(pipe(result) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        bruit_config *config = test_config("daemon", "manual");
        bruit_node *node = NULL, *peer = NULL;
        recorder *r = recorder_new();
        OK(bruit_node_new(config, &node));
        OK(bruit_node_on_event(node, BRUIT_EVENT_ALL, recorder_on_event, r, recorder_freed, NULL));
        CHECK(daemon(0, 1) == 0);
        alarm(300);
        OK(bruit_node_start(node));
        OK(bruit_config_set(config, "name", "peer"));
        OK(bruit_node_new(config, &peer));
        OK(bruit_config_free(config));
        OK(bruit_node_start(peer));
        test_join(peer, node);
        recorder_drive(r, node, 0, BRUIT_EVENT_JOIN, "peer");
        OK(bruit_node_free(peer));
        OK(bruit_node_free(node));
        EQ(recorder_freed_count(r), 1);
        recorder_free(r);
        CHECK(write(result[1], "+", 1) == 1);
        exit(0);
    }
    close(result[1]);
    passed(child);
    char answer = '-';
    CHECK(read(result[0], &answer, 1) == 1);
    EQ(answer, '+');
    close(result[0]);
}

enum { FD_LIMIT = 4096 };

/* Each descriptor that was not there before is closed on exec. */
static void closed_on_exec(const char *known) {
    int found = 0;
    for (int fd = 0; fd < FD_LIMIT; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && !known[fd]) {
            CHECK(flags & FD_CLOEXEC);
            found++;
        }
    }
    CHECK(found > 4); /* two nodes have two sockets each, and more */
}

static int blocks_all_signals(const char *task) {
    char path[300], line[256];
    unsigned long long blocked = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "SigBlk: %llx", &blocked);
    fclose(file);
    /* All but KILL and STOP, which cannot be, and the two that libc keeps for itself. */
    const unsigned long long all = ~0ULL & ~(1ULL << (SIGKILL - 1)) & ~(1ULL << (SIGSTOP - 1)) & ~(3ULL << 31);
    return (blocked & all) == all;
}

void test_manners(void) {
    struct sigaction before[65], after;
    sigset_t mask_before, mask_after;
    int signals = 0, own_threads = 0;
    char name[64], known[FD_LIMIT];
    for (int fd = 0; fd < FD_LIMIT; fd++)
        known[fd] = fcntl(fd, F_GETFD) >= 0;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
    for (int n = 1; n <= 64; n++)
        if (sigaction(n, NULL, &before[n]) == 0)
            signals++;

    bruit_node *node = test_started("guest", "thread"), *peer = test_started("peer", "manual");
    recorder *r = recorder_new();
    OK(bruit_node_on_event(node, BRUIT_EVENT_ALL, recorder_on_event, r, NULL, NULL));
    test_join(node, peer);
    recorder_wait(r, 0, BRUIT_EVENT_JOIN, "peer");

    /* Signals: handlers and the caller's mask are as they were, and none arrives on our threads. */
    CHECK(signals > 30);
    for (int n = 1; n <= 64; n++)
        if (sigaction(n, NULL, &after) == 0)
            CHECK(after.sa_handler == before[n].sa_handler && after.sa_flags == before[n].sa_flags);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    for (int n = 1; n <= 64; n++)
        EQ(sigismember(&mask_after, n), sigismember(&mask_before, n));
    DIR *dir = opendir("/proc/self/task");
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
            continue;
        char path[300];
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fgets(name, sizeof name, file) != NULL);
        fclose(file);
        if (strncmp(name, "bruit-", 6) != 0)
            FAIL("a thread named %s", name);
        CHECK(blocks_all_signals(entry->d_name));
        own_threads++;
    }
    closedir(dir);
    CHECK(own_threads >= 2);
    closed_on_exec(known);

    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
    recorder_free(r);
    EVENTUALLY(test_threads() == 1); /* one that was joined may be listed for a moment yet */
}
