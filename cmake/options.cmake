# Language, warnings and sanitizers: the same for every target.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # gnu17: futexes, GNU attributes, inline assembly
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# -O2 without NDEBUG; -ffp-contract=off: a fused multiply-add happens only where the code says so, or results would
# depend on the compiler. With sanitizers -O1, which takes three fifths of the time to compile; bantam_loops_long has the rest.
set(optimised -O2)
if(BANTAM_SANITIZE AND NOT BANTAM_FUZZ)
  set(optimised -O1)
endif()
set(CMAKE_C_FLAGS_RELEASE "${optimised} -g1")
set(CMAKE_CXX_FLAGS_RELEASE "${optimised} -g1")
add_compile_options(-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/= -fno-strict-aliasing -ffp-contract=off -fno-math-errno
  $<$<COMPILE_LANGUAGE:C>:-Wall> $<$<COMPILE_LANGUAGE:C>:-Wextra> $<$<COMPILE_LANGUAGE:C>:-Wvla>
  $<$<COMPILE_LANGUAGE:C>:-Wshadow> $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
  -Werror)
# -Wconversion for code that includes no generated header; tests are spared. clang's has ASSERT(!"text") too, and what it calls
# implicit in int8_t and float.
function(bantam_strict target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:-Wconversion> $<$<COMPILE_LANGUAGE:C>:-Wno-sign-conversion>
    $<$<COMPILE_LANG_AND_ID:C,Clang>:-Wno-string-conversion>)
endfunction()

add_compile_definitions(_GNU_SOURCE)
include_directories(${CMAKE_SOURCE_DIR})

if(BANTAM_SANITIZE)
  add_compile_options(-fsanitize=${BANTAM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${BANTAM_SANITIZE})
endif()

# libFuzzer finds its way by the coverage of all code, not of the target's own file alone.
if(BANTAM_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()

# What runs for longer in the tests than it takes to compile: -O2 with sanitizers too, where a file does not say otherwise.
function(bantam_loops_long target)
  if(BANTAM_SANITIZE)
    target_compile_options(${target} PRIVATE -O2)
  endif()
endfunction()

# One static library a room: bantam_room(text tokenizer.c template.c)
function(bantam_room name)
  add_library(bantam_${name} STATIC ${ARGN})
  bantam_strict(bantam_${name})
endfunction()
