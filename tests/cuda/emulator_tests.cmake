# Tests of the emulator itself, and what it and nvcc hold every kernel to.
bantam_test(test_broken_kernels test_broken_kernels.c LIBS cuda_emulator stdc++)
cuda_emulated_sources(test_broken_kernels broken_kernels.cu)
bantam_test(test_ptx_numbers test_ptx_numbers.c LIBS cuda_emulator stdc++)
cuda_emulated_sources(test_ptx_numbers number_kernels.cu)

# The same kernels, reporting each access to the emulator, which finds races on shared memory. The compiler's part of
# ThreadSanitizer does that; its library is not linked, and other sanitizers cannot be had at the same time.
if(NOT BANTAM_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  function(cuda_checked_kernels name)
    add_library(${name} OBJECT ${ARGN})
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=thread> $<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>)
    target_link_libraries(${name} PUBLIC cuda_emulator)
  endfunction()
  add_library(cuda_emulator_checks OBJECT emulator/emu_instrument.c)
  cuda_checked_kernels(cuda_kernels_checked emulator/emulated_kernels.c ${kernel_files})
  cuda_checked_kernels(broken_kernels_checked broken_kernels.cu)
  bantam_test(test_races test_broken_kernels.c LIBS broken_kernels_checked cuda_emulator_checks cuda_emulator stdc++)
  target_compile_definitions(test_races PRIVATE CHECKS_RACES=1)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set_source_files_properties(${CMAKE_SOURCE_DIR}/tests/kernels/bench_expand.c PROPERTIES COMPILE_OPTIONS "${BANTAM_AMX_OPTIONS}")
  endif()
  add_executable(checkkernel_races ${BANTAM_CHECK_SOURCES} check_device.c)
  target_link_libraries(checkkernel_races PRIVATE check_program bantam_kernels cuda_kernels_checked cuda_emulator_checks check_cuda stdc++)
  add_test(NAME checkkernel_races COMMAND checkkernel_races --device cuda --quick --sparse)
  set_tests_properties(checkkernel_races PROPERTIES COST 90)
endif()

# Layouts of fragments: the emulator's against the ISA's formulas and the dumps of cards.
add_library(fragments_emulated STATIC fragments_emulated.c fragment_dump.c)
cuda_emulated_sources(fragments_emulated fragment_kernels.cu)
target_link_libraries(fragments_emulated PUBLIC cuda_emulator stdc++)
bantam_test(test_fragments test_fragments.c LIBS fragments_emulated)
add_executable(dump_fragments_emulated dump_fragments_emulated.c)
target_link_libraries(dump_fragments_emulated PRIVATE fragments_emulated)

# Every kernel for every target without spills. The tests' own kernels use every primitive of ptx.h, so that the device's
# bodies are compiled as well.
add_test(NAME cuda_compile_selftest COMMAND ${BANTAM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/check_compile_selftest.py)
if(NOT BANTAM_SANITIZE)
  add_test(NAME cuda_archs_selftest COMMAND ${BANTAM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/cuda_archs_selftest.py)
  add_test(NAME interface_number_selftest COMMAND ${BANTAM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/interface_number_selftest.py)
endif()
if(BANTAM_NVCC AND NOT BANTAM_SANITIZE)
  bantam_cuda_objects(test_objects emulator_kernels.cu product_kernels.cu number_kernels.cu)
  add_custom_target(cuda_compiled DEPENDS ${test_objects} ${BANTAM_CUDA_OBJECTS} dump_fragments bantam_cuda)
  add_test(NAME cuda_compile_build COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --parallel 2 --target cuda_compiled)
  add_test(NAME cuda_compile_check COMMAND ${BANTAM_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/check_compile.py --table
    --targets ${BANTAM_CUDA_MACHINE_TARGETS} -- ${test_objects} ${BANTAM_CUDA_OBJECTS})
  set_tests_properties(cuda_compile_build PROPERTIES FIXTURES_SETUP cuda_compiled TIMEOUT 900 COST 300)
  set_tests_properties(cuda_compile_check PROPERTIES FIXTURES_REQUIRED cuda_compiled)
else()
  add_test(NAME cuda_compile_check COMMAND ${CMAKE_COMMAND} -E echo
    "skipped: no nvcc here, or a build with sanitizers: kernels are compiled for the emulator alone")
  set_tests_properties(cuda_compile_check PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: no nvcc")
endif()
