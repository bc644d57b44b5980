/* bruit in an existing single-threaded daemon: its epoll loop gets one more descriptor.
 *
 *     ./epoll_service [--foreground] [--until N] FILE
 *
 * FILE has options as docs/CONFIGURATION.md lists them, for example
 *
 *     name = db-1
 *     bind = 127.0.0.1:18946
 *     seed = 127.0.0.1:18947
 *     key = 64 hexadecimal digits, the same at all members; needed for addresses other than loopback
 *     meta.role = db
 *
 * The order matters for a daemon: bruit_node_new() reads and checks everything, so that mistakes are told on the terminal; it opens
 * nothing and starts no thread, so daemon() and setuid() may follow; bruit_node_start() comes last. --until N ends the program
 * once N members have been alive at once. */
#define _GNU_SOURCE
#include <bruit.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct service {
    bruit_node *node;
    int epoll, signals, timer, bruit;
    size_t until;
    int done;
};

static void die(const char *what) {
    fprintf(stderr, "epoll_service: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "epoll_service: %s: %s: %s\n", what, bruit_err_name(rc), bruit_last_error());
        exit(1);
    }
}

static size_t alive(const bruit_node *node) {
    bruit_members *members;
    size_t count = 0;
    check(bruit_node_members(node, &members), "members");
    for (size_t n = 0; n < bruit_members_len(members); n++)
        count += bruit_members_at(members, n)->state == BRUIT_MEMBER_ALIVE;
    bruit_members_free(members);
    return count;
}

/* Runs in bruit_node_dispatch(), which is to say on our only thread: no locks needed. */
static void on_event(const bruit_event *event, void *user) {
    struct service *service = user;
    if (event->member != NULL)
        printf("%s %s %s\n", bruit_event_name(event->kind), event->member->name, event->member->address);
    else
        printf("%s %s\n", bruit_event_name(event->kind), event->text != NULL ? event->text : "");
    if (service->until > 0 && alive(service->node) >= service->until)
        service->done = 1;
}

static void watch(struct service *service, int fd) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN; /* level-triggered, the default */
    event.data.fd = fd;
    if (epoll_ctl(service->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

/* The loop that was there before bruit came. */
static void open_loop(struct service *service) {
    const struct itimerspec every_minute = {{60, 0}, {60, 0}};
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    service->epoll = epoll_create1(EPOLL_CLOEXEC);
    service->signals = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
    service->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (service->epoll < 0 || service->signals < 0 || service->timer < 0)
        die("epoll");
    timerfd_settime(service->timer, 0, &every_minute, NULL);
    watch(service, service->signals);
    watch(service, service->timer);
}

static void loop(struct service *service) {
    while (!service->done) {
        struct epoll_event ready[8];
        int count = epoll_wait(service->epoll, ready, 8, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int n = 0; n < count; n++) {
            if (ready[n].data.fd == service->bruit) {
                check(bruit_node_dispatch(service->node, 64), "dispatch"); /* what is left keeps the descriptor readable */
            } else if (ready[n].data.fd == service->timer) {
                unsigned char ticks[8];
                if (read(service->timer, ticks, sizeof ticks) > 0)
                    printf("%zu alive\n", alive(service->node));
            } else {
                service->done = 1; /* SIGTERM or SIGINT */
            }
        }
    }
}

int main(int argc, char **argv) {
    struct service service = {NULL, -1, -1, -1, -1, 0, 0};
    int foreground = 0, arg = 1;
    bruit_config *config;
    char address[64];
    for (; arg < argc && strncmp(argv[arg], "--", 2) == 0; arg++) {
        if (strcmp(argv[arg], "--foreground") == 0)
            foreground = 1;
        else if (strcmp(argv[arg], "--until") == 0 && arg + 1 < argc)
            service.until = (size_t)strtoul(argv[++arg], NULL, 10);
    }
    if (arg + 1 != argc) {
        fprintf(stderr, "usage: epoll_service [--foreground] [--until N] FILE\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    check(bruit_config_new(&config), "config");
    check(bruit_config_load(config, argv[arg]), argv[arg]);
    check(bruit_config_set(config, "dispatch", "manual"), "dispatch");
    check(bruit_node_new(config, &service.node), "new");
    check(bruit_config_free(config), "config");
    check(bruit_node_on_event(service.node, BRUIT_EVENT_ALL, on_event, &service, NULL, NULL), "on_event");

    if (!foreground && daemon(1, 1) != 0) /* keeps directory and output, which a real service would not */
        die("daemon");

    open_loop(&service);
    check(bruit_node_start(service.node), "start");
    check(service.bruit = bruit_node_event_fd(service.node), "event_fd");
    watch(&service, service.bruit);
    check(bruit_node_address(service.node, address, sizeof address, NULL), "address");
    printf("at %s, process %ld\n", address, (long)getpid());

    loop(&service);

    check(bruit_node_leave(service.node, 2000), "leave");
    check(bruit_node_free(service.node), "free");
    close(service.timer);
    close(service.signals);
    close(service.epoll);
    return 0;
}
