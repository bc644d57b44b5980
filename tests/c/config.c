/* Tables and configuration: nothing here starts a node. */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

void test_tables(void) {
    size_t count = 0;
    const bruit_err_desc *errors = bruit_err_descs(&count);
    EQ(count, 25);
    for (size_t n = 0; n < count; n++) {
        EQ(errors[n].size, sizeof *errors);
        EQ(errors[n].code, -(int)n);
        STREQ(bruit_err_name(errors[n].code), errors[n].name);
        STREQ(bruit_strerror(errors[n].code), errors[n].text);
    }
    STREQ(errors[0].name, "OK");
    STREQ(bruit_err_name(BRUIT_E_TIMEOUT), "E_TIMEOUT");
    STREQ(bruit_err_name(-1000), "E_UNKNOWN");
    STREQ(bruit_strerror(17), "unknown error code");

    const bruit_option_desc *options = bruit_option_descs(&count);
    CHECK(count > 40);
    bruit_config *config = NULL;
    OK(bruit_config_new(&config));
    for (size_t n = 0; n < count; n++) {
        char value[256];
        const bruit_option_desc *option = &options[n];
        EQ(option->size, sizeof *option);
        CHECK(option->kind >= BRUIT_OPTION_TEXT && option->kind <= BRUIT_OPTION_CHOICE);
        CHECK(option->doc[0] != '\0' && option->group[0] != '\0' && option->unit != NULL && option->source != NULL);
        CHECK(option->kind != BRUIT_OPTION_CHOICE || option->choices[0] != '\0');
        OK(bruit_config_get(config, option->key, value, sizeof value, NULL));
        STREQ(value, option->lan);
        OK(bruit_config_set(config, option->key, value));
    }
    OK(bruit_config_free(config));

    const bruit_stat_desc *stats = bruit_stat_descs(&count);
    CHECK(count > 10);
    for (size_t n = 0; n < count; n++) {
        EQ(stats[n].size, sizeof *stats);
        CHECK(stats[n].name[0] != '\0' && stats[n].doc[0] != '\0');
    }

    STREQ(bruit_version(), BRUIT_VERSION);
    EQ(bruit_abi_version(), BRUIT_ABI_VERSION);
    STREQ(bruit_event_name(BRUIT_EVENT_LEAVE_DONE), "LEAVE_DONE");
    STREQ(bruit_event_name(3), "UNKNOWN");
    STREQ(bruit_member_state_name(BRUIT_MEMBER_SUSPECT), "SUSPECT");
    STREQ(bruit_member_state_name(0), "UNKNOWN");
}

static void *fails(void *unused) {
    (void)unused;
    EQ(bruit_config_free(NULL), BRUIT_E_HANDLE);
    CHECK(bruit_last_error()[0] != '\0');
    return NULL;
}

void test_options(void) {
    char value[64];
    size_t len = 99;
    bruit_config *config = NULL, *copy = NULL;
    bruit_node *node = NULL;

    STREQ(bruit_last_error(), "");
    OK(bruit_config_new(&config));

    OK(bruit_config_set(config, "probe_interval", "1.5s"));
    OK(bruit_config_get(config, "probe_interval", value, sizeof value, &len));
    STREQ(value, "1500ms");
    EQ(len, 6);

    /* A buffer that is too small is left alone, and the size that it needs is told. */
    strcpy(value, "untouched");
    EQ(bruit_config_get(config, "probe_interval", value, 4, &len), BRUIT_E_BUFFER);
    EQ(len, 7);
    STREQ(value, "untouched");
    EQ(bruit_config_get(config, "probe_interval", NULL, 0, &len), BRUIT_E_BUFFER);
    EQ(len, 7);
    OK(bruit_config_get(config, "probe_interval", value, len, &len));
    EQ(len, 6);

    /* What is refused changes nothing, and the text says what is expected. */
    EQ(bruit_config_set(config, "probe_interval", "soon"), BRUIT_E_INVALID);
    CHECK(strstr(bruit_last_error(), "probe_interval") != NULL);
    EQ(bruit_config_set(config, "probe_interval", "\xff\xfe"), BRUIT_E_INVALID);
    EQ(bruit_config_set(config, "no_such_option", "1"), BRUIT_E_NOT_FOUND);
    len = 99;
    EQ(bruit_config_get(config, "no_such_option", value, sizeof value, &len), BRUIT_E_NOT_FOUND);
    EQ(len, 99);
    OK(bruit_config_get(config, "probe_interval", value, sizeof value, &len));
    STREQ(value, "1500ms");

    /* Errors are each thread's own, and success leaves them alone. */
    EQ(bruit_config_set(config, "gossip_fanout", "many"), BRUIT_E_INVALID);
    char before[256];
    pthread_t other;
    snprintf(before, sizeof before, "%s", bruit_last_error());
    CHECK(pthread_create(&other, NULL, fails, NULL) == 0);
    pthread_join(other, NULL);
    OK(bruit_config_set(config, "gossip_fanout", "4"));
    STREQ(bruit_last_error(), before);

    /* A copy goes its own way. */
    OK(bruit_config_dup(config, &copy));
    OK(bruit_config_set(copy, "gossip_fanout", "5"));
    OK(bruit_config_get(config, "gossip_fanout", value, sizeof value, NULL));
    STREQ(value, "4");
    OK(bruit_config_get(copy, "gossip_fanout", value, sizeof value, NULL));
    STREQ(value, "5");
    OK(bruit_config_free(copy));

    OK(bruit_config_add_seed(config, "node1.example:18946"));
    OK(bruit_config_add_seed(config, "[fd00::7]"));
    EQ(bruit_config_add_seed(config, "node1:port"), BRUIT_E_ADDRESS);
    char key[BRUIT_KEY_LEN];
    memset(key, 7, sizeof key);
    EQ(bruit_config_add_key(config, key, 16), BRUIT_E_INVALID);
    EQ(bruit_config_set_meta(config, "a=b", "c", 1), BRUIT_E_INVALID);
    EQ(bruit_config_on_log(config, 9, NULL, NULL, NULL), BRUIT_E_INVALID);
    EQ(bruit_config_on_log(config, -1, NULL, NULL, NULL), BRUIT_E_INVALID);

    /* Reachable from outside and without a key: refused, before anything is bound. */
    OK(bruit_config_set(config, "bind", "0.0.0.0:0"));
    EQ(bruit_node_new(config, &node), BRUIT_E_AUTH);
    CHECK(node == NULL);
    OK(bruit_config_add_key(config, key, sizeof key));
    OK(bruit_node_new(config, &node));

    /* The node has its own copy. */
    OK(bruit_config_set(config, "name", "other"));
    OK(bruit_config_free(config));
    EQ(bruit_node_state(node), BRUIT_NODE_NEW);
    EQ(bruit_node_address(node, value, sizeof value, NULL), BRUIT_E_STATE);
    char name[BRUIT_NAME_MAX + 1];
    OK(bruit_node_name(node, name, sizeof name, &len));
    EQ(len, strlen(name));
    CHECK(len > 0 && strcmp(name, "other") != 0);
    EQ(bruit_node_name(node, name, 1, &len), BRUIT_E_BUFFER);
    EQ(len, strlen(name) + 1);
    OK(bruit_node_free(node));
}

static void with_file(const char *text, bruit_config *config, int expected) {
    char path[] = "/tmp/bruit-test-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    int rc = bruit_config_load(config, path);
    unlink(path);
    EQ(rc, expected);
}

void test_option_files(void) {
    char value[64];
    bruit_config *config = NULL;
    OK(bruit_config_new(&config));

    with_file("# a comment\nname = a\n\nprofile = wan # another\nseed = node1:18946\nmeta.role = db\n", config, BRUIT_OK);
    OK(bruit_config_get(config, "name", value, sizeof value, NULL));
    STREQ(value, "a");
    OK(bruit_config_get(config, "profile", value, sizeof value, NULL));
    STREQ(value, "wan");

    with_file("name = b\nprobe_interval = never\n", config, BRUIT_E_INVALID);
    CHECK(strstr(bruit_last_error(), "line 2") != NULL);
    OK(bruit_config_get(config, "name", value, sizeof value, NULL));
    STREQ(value, "a"); /* all or nothing */

    EQ(bruit_config_load(config, "/nonexistent/bruit.conf"), BRUIT_E_IO);
    EQ(bruit_last_errno(), ENOENT);
    EQ(bruit_config_load(config, "/dev/zero"), BRUIT_E_TOO_BIG);
    OK(bruit_config_free(config));
}

static int bound(int kind, uint16_t *port) {
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(*port);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

void test_adopted_sockets(void) {
    char expected[32];
    uint16_t port;
    int udp, tcp;
    do { /* a port that is free for both */
        port = 0;
        udp = bound(SOCK_DGRAM, &port);
        tcp = bound(SOCK_STREAM, &port);
        if (tcp < 0)
            close(udp);
    } while (tcp < 0);
    CHECK(listen(tcp, 16) == 0);

    bruit_config *config = test_config("adopts", "manual");
    bruit_node *node = NULL, *peer = test_started("peer", "manual");
    EQ(bruit_config_adopt_sockets(config, tcp, udp), BRUIT_E_INVALID); /* the wrong way round */
    EQ(bruit_config_adopt_sockets(config, -2, -1), BRUIT_E_INVALID);
    EQ(bruit_config_adopt_sockets(config, 100000, -1), BRUIT_E_INVALID);
    EQ(bruit_last_errno(), EBADF);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    EQ(bruit_config_adopt_sockets(config, file, -1), BRUIT_E_INVALID);
    close(file);

    OK(bruit_config_adopt_sockets(config, udp, tcp));
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    close(udp); /* ours, and no longer needed */
    close(tcp);
    OK(bruit_node_start(node));
    snprintf(expected, sizeof expected, "127.0.0.1:%d", port);
    STREQ(test_address(node), expected);
    test_join(peer, node);
    OK(bruit_node_stop(node, -1));

    /* Nothing holds the port any more, though the node is not yet freed. */
    udp = bound(SOCK_DGRAM, &port);
    CHECK(udp >= 0);
    close(udp);
    OK(bruit_node_free(node));
    OK(bruit_node_free(peer));
}
