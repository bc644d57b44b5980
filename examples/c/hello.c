/* Joins a cluster, prints who is there, stays until its input ends, and leaves.
 *
 *     ./hello a 127.0.0.1:0                        prints: a is at 127.0.0.1:40123
 *     ./hello b 127.0.0.1:0 127.0.0.1:40123        in another terminal
 *
 * Without a key bruit talks on loopback addresses only; see epoll_service.c for a program with a configuration file. */
#include <bruit.h>

#include <stdio.h>
#include <stdlib.h>

static void check(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, bruit_err_name(rc), bruit_last_error());
        exit(1);
    }
}

static void print_members(const bruit_node *node) {
    bruit_members *members;
    check(bruit_node_members(node, &members), "members");
    for (size_t n = 0; n < bruit_members_len(members); n++) {
        const bruit_member *member = bruit_members_at(members, n);
        printf("  %-20s %-22s %s%s\n", member->name, member->address, bruit_member_state_name(member->state),
               member->flags & BRUIT_MEMBER_LOCAL ? " (this one)" : "");
    }
    bruit_members_free(members); /* and all members with it */
}

int main(int argc, char **argv) {
    bruit_config *config;
    bruit_node *node;
    char address[64];
    if (argc < 3) {
        fprintf(stderr, "usage: hello NAME HOST:PORT [SEED...]\n");
        return 2;
    }

    check(bruit_config_new(&config), "config");
    check(bruit_config_set(config, "name", argv[1]), "name");
    check(bruit_config_set(config, "bind", argv[2]), "bind");
    check(bruit_node_new(config, &node), "new"); /* has a copy of the configuration now */
    check(bruit_config_free(config), "config");
    check(bruit_node_start(node), "start");
    check(bruit_node_address(node, address, sizeof address, NULL), "address");
    printf("%s is at %s\n", argv[1], address);

    if (argc > 3) {
        /* Seeds in the configuration would be tried for ever; this asks once, and says how many answered. */
        int answered = bruit_node_join(node, (const char *const *)(argv + 3), (size_t)(argc - 3), 5000);
        check(answered, "join");
        printf("%d of %d answered\n", answered, argc - 3);
    }
    print_members(node);
    fflush(stdout);

    while (getchar() != EOF)
        ;
    print_members(node);
    check(bruit_node_leave(node, 2000), "leave"); /* the others see LEFT, and need not find out */
    check(bruit_node_free(node), "free");
    return 0;
}
