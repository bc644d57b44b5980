/* A program with threads of its own: events come on bruit's thread, commands on the main one.
 *
 *     ./thread_callbacks NAME HOST:PORT [SEED...]
 *
 * Commands on its input: `set KEY VALUE` and `unset KEY` change what the others read about this member, `with KEY` or `with KEY=VALUE`
 * lists members, `wait N` waits until N members are alive, `quit`. */
#define _POSIX_C_SOURCE 200809L
#include <bruit.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shared by two threads: bruit calls without any lock held, so a lock of ours is safe in a callback. */
struct state {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t others; /* alive or suspected */
};

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, bruit_err_name(rc), bruit_last_error());
        exit(1);
    }
}

static int counts(const bruit_member *member) {
    return member != NULL && member->state <= BRUIT_MEMBER_SUSPECT;
}

/* One at a time, in order. `before` and `member` tell what changed, however much happened in between. */
static void on_event(const bruit_event *event, void *user) {
    struct state *state = user;
    const void *role = "";
    bruit_member_meta(event->member, "role", &role, NULL);
    printf("%s %s %s\n", bruit_event_name(event->kind), event->member->name, (const char *)role);
    fflush(stdout);

    pthread_mutex_lock(&state->lock);
    state->others += (size_t)counts(event->member);
    state->others -= (size_t)counts(event->before);
    pthread_cond_broadcast(&state->changed);
    pthread_mutex_unlock(&state->lock);
}

/* After the last callback has returned: now nobody else looks at it. */
static void free_state(void *user) {
    struct state *state = user;
    pthread_cond_destroy(&state->changed);
    pthread_mutex_destroy(&state->lock);
    free(state);
}

static void command(bruit_node *node, struct state *state, char *line) {
    char *verb = strtok(line, " "), *key = strtok(NULL, " "), *value = strtok(NULL, "");
    if (verb != NULL && strcmp(verb, "set") == 0 && key != NULL && value != NULL) {
        const bruit_kv change = {sizeof change, key, value, strlen(value)};
        check(bruit_node_set_meta(node, &change, 1), "set");
    } else if (verb != NULL && strcmp(verb, "unset") == 0 && key != NULL) {
        const bruit_kv change = {sizeof change, key, NULL, 0};
        check(bruit_node_set_meta(node, &change, 1), "unset");
    } else if (verb != NULL && strcmp(verb, "with") == 0 && key != NULL) {
        bruit_members *members;
        const bruit_member *found[16];
        check(bruit_node_members(node, &members), "members");
        size_t count = bruit_members_with(members, key, found, 16);
        printf("%zu with %s\n", count, key);
        for (size_t n = 0; n < count && n < 16; n++)
            printf("  %s\n", found[n]->name);
        bruit_members_free(members);
    } else if (verb != NULL && strcmp(verb, "wait") == 0 && key != NULL) {
        size_t wanted = (size_t)strtoul(key, NULL, 10);
        pthread_mutex_lock(&state->lock);
        while (state->others + 1 < wanted)
            pthread_cond_wait(&state->changed, &state->lock);
        pthread_mutex_unlock(&state->lock);
        printf("%s are here\n", key);
    } else {
        printf("commands: set KEY VALUE, unset KEY, with KEY[=VALUE], wait N, quit\n");
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    char line[512], address[64];
    bruit_config *config;
    bruit_node *node;
    struct state *state = calloc(1, sizeof *state);
    if (argc < 3 || state == NULL) {
        fprintf(stderr, "usage: thread_callbacks NAME HOST:PORT [SEED...]\n");
        return 2;
    }
    pthread_mutex_init(&state->lock, NULL);
    pthread_cond_init(&state->changed, NULL);

    check(bruit_config_new(&config), "config");
    check(bruit_config_set(config, "name", argv[1]), "name");
    check(bruit_config_set(config, "bind", argv[2]), "bind");
    check(bruit_config_set(config, "dispatch", "thread"), "dispatch"); /* the default */
    for (int n = 3; n < argc; n++)
        check(bruit_config_add_seed(config, argv[n]), "seed");
    check(bruit_node_new(config, &node), "new");
    check(bruit_config_free(config), "config");

    /* Before the start, so that no event is missed: then `others` is always right. */
    const uint32_t membership = BRUIT_EVENT_JOIN | BRUIT_EVENT_UPDATE | BRUIT_EVENT_SUSPECT | BRUIT_EVENT_ALIVE |
                                BRUIT_EVENT_DEAD | BRUIT_EVENT_LEFT | BRUIT_EVENT_FORGOTTEN;
    check(bruit_node_on_event(node, membership, on_event, state, free_state, NULL), "on_event");
    check(bruit_node_start(node), "start");
    check(bruit_node_address(node, address, sizeof address, NULL), "address");
    printf("%s is at %s\n", argv[1], address);
    fflush(stdout);

    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0)
            break;
        command(node, state, line);
    }
    check(bruit_node_leave(node, 2000), "leave");
    check(bruit_node_free(node), "free"); /* no callback runs any more, and `state` is freed */
    return 0;
}
