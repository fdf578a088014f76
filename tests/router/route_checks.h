/* Tests of test_route_service that stand in a file of their own. */
#pragma once

int route_check_tests(void); /* as cmocka_run_group_tests */
