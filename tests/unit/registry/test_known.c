/* The table of known registries: found by name and pattern, and consistent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry/known.h"
#include "registry/name.h"

static void registries_are_found(void **state)
{
    UNUSED(state);
    static const struct {
        const char *registry, *title; /* NULL: not known */
    } cases[] = {
        {"docker.io", "Docker Hub"},
        {"mcr.microsoft.com", "Microsoft Artifact Registry"},
        {"public.ecr.aws", "Amazon ECR Public"},
        {"ghcr.io", "GitHub Container Registry"},
        {"quay.io", "Quay"},
        {"registry.k8s.io", "Kubernetes registry"},
        {"us-docker.pkg.dev", "Google Artifact Registry"},
        {"europe-west1-docker.pkg.dev", "Google Artifact Registry"},
        {"gcr.io", "Google Container Registry"},
        {"us.gcr.io", "Google Container Registry"},
        {"eu.gcr.io", "Google Container Registry"},
        {"asia.gcr.io", "Google Container Registry"},
        {"corp.azurecr.io", "Azure Container Registry"},
        {"corp.eastus.geo.azurecr.io", "Azure Container Registry"},
        {"corp.azurecr.cn", "Azure Container Registry"},
        {"corp.azurecr.us", "Azure Container Registry"},
        {"registry.gitlab.com", "GitLab"},
        {"nvcr.io", "NVIDIA NGC"},
        {"registry.redhat.io", "Red Hat registry"},
        {"registry.access.redhat.com", "Red Hat registry without accounts"},
        {"dhi.io", "Docker Hardened Images"},
        {"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "Amazon ECR"},
        {"", NULL},
        {"registry.corp.example", NULL},
        {"docker.io:5000", NULL},
        {"corp.azurecr.io:5000", NULL},
        {"evil-docker.io", NULL},
        {"docker.io.example", NULL},
        {"azurecr.io", NULL},
        {".azurecr.io", NULL},
        {"xazurecr.io", NULL},
        {"corp.azurecr.io.example", NULL},
        {"-docker.pkg.dev", NULL},
        {"x-docker.pkg.dev.example", NULL},
        {"mirror.gcr.io", NULL},
        {"1.dkr.ecr.amazonaws.com", NULL},
        {"1.dkr.ecr..amazonaws.com", NULL},
        {"1.dkr.ecr.x.amazonaws.com.example", NULL},
        {"1.dkr.ecr.x.amazonaws.com.dkr.ecr.y.amazonaws.com", "Amazon ECR"},
        {"gitlab.com", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct known_registry *k = known_find(span_str(cases[i].registry));
        assert_int_equal(k != NULL, cases[i].title != NULL);
        if (k != NULL)
            assert_true(span_eq(k->title, span_str(cases[i].title)));
    }
}

static void what_is_special(void **state)
{
    UNUSED(state);
    const struct known_registry *hub = known_find(SPAN("docker.io"));
    assert_true(hub->library && !hub->no_blob_head && hub->auth == KNOWN_BOTH);
    assert_true(span_eq(hub->endpoint, SPAN("registry-1.docker.io")));
    assert_true(span_eq(hub->realm, SPAN("auth.docker.io")));
    assert_true(span_starts(hub->anonymous_limit, SPAN("100 pulls in 6 hours")));
    assert_true(known_find(SPAN("public.ecr.aws"))->no_blob_head);
    assert_true(known_find(SPAN("mcr.microsoft.com"))->auth == KNOWN_ANONYMOUS);
    assert_null(known_find(SPAN("mcr.microsoft.com"))->endpoint.p);
    assert_null(known_find(SPAN("mcr.microsoft.com"))->realm.p);
    assert_null(known_find(SPAN("mcr.microsoft.com"))->note.p);
    assert_true(known_find(SPAN("registry.access.redhat.com"))->auth == KNOWN_ANONYMOUS);
    assert_true(known_find(SPAN("registry.redhat.io"))->auth == KNOWN_ACCOUNT);
    assert_true(known_find(SPAN("dhi.io"))->auth == KNOWN_ACCOUNT);
    assert_true(known_find(SPAN("1.dkr.ecr.eu-west-1.amazonaws.com"))->auth == KNOWN_ACCOUNT);
    assert_true(span_eq(known_find(SPAN("nvcr.io"))->realm, SPAN("authn.nvidia.com")));
    assert_true(span_eq(known_find(SPAN("registry.gitlab.com"))->realm, SPAN("gitlab.com")));
}

static void hosts(void **state)
{
    UNUSED(state);
    const struct known_registry *hub = known_find(SPAN("docker.io"));
    static const char *const names[] = {"docker.io", "index.docker.io", "registry-1.docker.io",
                                        "Index.Docker.IO"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_ptr_equal(known_of_host(span_str(names[i])), hub);
    assert_ptr_equal(known_of_host(SPAN("GHCR.io")), known_find(SPAN("ghcr.io")));
    assert_null(known_of_host(SPAN("auth.docker.io")));
    assert_null(known_of_host(SPAN("corp.azurecr.io")));
    assert_null(known_of_host(SPAN("")));
    assert_null(known_of_host(SPAN_NONE));
}

/* Names are canonical, each row is the one that its name finds, and no host is two registries. */
static void the_table_is_consistent(void **state)
{
    UNUSED(state);
    size_t n = 0;
    for (const struct known_registry *k; (k = known_at(n)) != NULL; n++) {
        char buf[NAME_REGISTRY_MAX + 1];
        struct str canonical = STR_INIT(buf);
        assert_true(k->name.n > 0 && k->title.n > 0);
        if (span_find(k->name, '*') < 0) {
            assert_true(name_registry_canonical(k->name, &canonical));
            assert_true(span_eq(str_span(&canonical), k->name));
            assert_ptr_equal(known_of_host(k->name), k);
        }
        assert_ptr_equal(known_find(k->name), k);
        if (k->endpoint.p != NULL) {
            assert_ptr_equal(known_of_host(k->endpoint), k);
            assert_null(known_find(k->endpoint));
        }
        if (k->realm.p != NULL)
            assert_true(name_registry_ok(k->realm) && k->auth != KNOWN_ANONYMOUS);
        assert_true(k->anonymous_limit.p == NULL || k->auth == KNOWN_BOTH);
        assert_true(k->library == name_is_docker_hub(k->name));
    }
    assert_int_equal(n, 20);
    assert_null(known_at(n + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registries_are_found),
        cmocka_unit_test(what_is_special),
        cmocka_unit_test(hosts),
        cmocka_unit_test(the_table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
