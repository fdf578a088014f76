# Where CUDA is: nvcc, the headers of its libraries and the static runtime, from a toolkit or from the nvidia-* Python
# packages. BANTAM_NVCC is false where there is none: all but libbantam_cuda.so builds without it.
#   BANTAM_NVCC, BANTAM_CUDA_GENCODE, BANTAM_CUDA_MACHINE_TARGETS (a list: sm_80 and so on), BANTAM_CUDA_TARGETS (those and
#   compute_90, a text), BANTAM_CUDA_INCLUDE_DIRS,
#   BANTAM_CUDART_STATIC, BANTAM_HAS_CUBLASLT, BANTAM_HAS_NCCL
#   bantam_cuda_objects(out file.cu...): each file compiled on its own, so that kernels build in parallel; what ptxas
#   says of it (registers, spills) is kept beside the object
option(BANTAM_CUDA "Build libbantam_cuda.so where nvcc is found" ON)
set(every_arch "80;86;89;90a;120;90-virtual")
set(BANTAM_CUDA_ARCHS "${every_arch}" CACHE STRING
  "Cards to make machine code for; -virtual is PTX for later ones; native: those that nvidia-smi lists; found: those, else every one")

set(BANTAM_NVCC)
if(NOT BANTAM_CUDA)
  return()
endif()

# Folders of the nvidia-* packages of the first python3: nvidia/cu13, nvidia/nccl and so on.
find_program(BANTAM_PATH_PYTHON python3)
set(nvidia_folders)
if(BANTAM_PATH_PYTHON)
  execute_process(
    COMMAND ${BANTAM_PATH_PYTHON} -c
      "import glob, sys; print(';'.join(f for p in sys.path for f in sorted(glob.glob(p + '/nvidia/*'))))"
    OUTPUT_VARIABLE nvidia_folders OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
set(cuda_folders $ENV{CUDA_HOME} $ENV{CUDA_PATH} /usr/local/cuda ${nvidia_folders})

find_program(BANTAM_NVCC_PROGRAM nvcc HINTS ${cuda_folders} PATH_SUFFIXES bin)
find_path(BANTAM_CUDART_HEADERS cuda_runtime.h HINTS ${cuda_folders} PATH_SUFFIXES include)
find_library(BANTAM_CUDART_STATIC libcudart_static.a HINTS ${cuda_folders} PATH_SUFFIXES lib64 lib)
find_path(BANTAM_CUBLASLT_HEADERS cublasLt.h HINTS ${cuda_folders} PATH_SUFFIXES include)
find_path(BANTAM_NCCL_HEADERS nccl.h HINTS ${cuda_folders} PATH_SUFFIXES include)
if(NOT BANTAM_NVCC_PROGRAM OR NOT BANTAM_CUDART_HEADERS OR NOT BANTAM_CUDART_STATIC)
  message(STATUS "nvcc: none; built without libbantam_cuda.so")
  return()
endif()
set(BANTAM_NVCC ${BANTAM_NVCC_PROGRAM})
set(BANTAM_CUDA_INCLUDE_DIRS ${BANTAM_CUDART_HEADERS})
foreach(library CUBLASLT NCCL)
  set(BANTAM_HAS_${library} OFF)
  if(BANTAM_${library}_HEADERS)
    set(BANTAM_HAS_${library} ON)
    list(APPEND BANTAM_CUDA_INCLUDE_DIRS ${BANTAM_${library}_HEADERS})
  endif()
endforeach()
list(REMOVE_DUPLICATES BANTAM_CUDA_INCLUDE_DIRS)

# What an older nvcc does not know is left out.
execute_process(COMMAND ${BANTAM_NVCC} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)

# bantam_archs_found(list): the archs of this machine's cards, none where nvidia-smi is not there or lists none of 8.0 or
# later. 9.0 -> 90a: wgmma is in no other name of it. 12.1 runs the machine code of 12.0 where nvcc knows no better. Any other
# card that nvcc does not know, and one that is not listed above, runs the PTX of compute_90.
function(bantam_archs_found list)
  set(found)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE answer RESULT_VARIABLE failed ERROR_QUIET)
  if(failed)
    set(answer)
  endif()
  string(REGEX MATCHALL "[0-9]+\\.[0-9]" capabilities "${answer}")
  foreach(capability IN LISTS capabilities)
    string(REPLACE "." "" number ${capability})
    if(number LESS 80)
      message(STATUS "a card of compute capability ${capability}: the kernels need 8.0")
    elseif(number EQUAL 90)
      list(APPEND found 90a)
    elseif(number MATCHES "^12[0-9]$" AND NOT known MATCHES "sm_${number}[^0-9]" AND known MATCHES "sm_120[^0-9]")
      list(APPEND found 120)
    elseif(number MATCHES "^1[013][0-9]$" OR NOT known MATCHES "sm_${number}[^0-9]")
      list(APPEND found 90-virtual)
    else()
      list(APPEND found ${number})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES found)
  set(${list} ${found} PARENT_SCOPE)
endfunction()

set(archs ${BANTAM_CUDA_ARCHS})
if(archs MATCHES "^(native|found)$")
  bantam_archs_found(archs)
  if(NOT archs AND BANTAM_CUDA_ARCHS STREQUAL "native")
    message(FATAL_ERROR "BANTAM_CUDA_ARCHS=native, but nvidia-smi lists no card")
  elseif(NOT archs)
    message(STATUS "nvidia-smi lists no card that the kernels run on: they are compiled for every one (BANTAM_CUDA_ARCHS)")
    set(archs ${every_arch})
  endif()
endif()

# Plain machine code of 9.0 lacks wgmma, which a card of 9.0 is given everywhere.
if("${archs}" MATCHES "(^|;)(90|90a-virtual)(;|$)")
  message(STATUS "BANTAM_CUDA_ARCHS: 90a instead of 90: wgmma is in no other name of it")
  list(TRANSFORM archs REPLACE "^90$|^90a-virtual$" "90a")
  list(REMOVE_DUPLICATES archs)
elseif("${archs}" MATCHES "(^|;)90-virtual(;|$)" AND NOT "${archs}" MATCHES "(^|;)90a(;|$)")
  message(STATUS "BANTAM_CUDA_ARCHS: 90-virtual without 90a: PTX for later cards; a card of 9.0 itself is refused at start")
endif()

set(BANTAM_CUDA_GENCODE)
set(arch_names)
foreach(arch IN LISTS archs)
  string(REGEX MATCH "^[0-9]+" number "${arch}")
  if(NOT known MATCHES "sm_${number}[^0-9]")
    message(STATUS "nvcc does not know sm_${number}: left out")
  elseif(arch MATCHES "-virtual$")
    list(APPEND BANTAM_CUDA_GENCODE -gencode=arch=compute_${number},code=compute_${number})
    list(APPEND arch_names compute_${number})
  else()
    list(APPEND BANTAM_CUDA_GENCODE -gencode=arch=compute_${arch},code=sm_${arch})
    list(APPEND arch_names sm_${arch})
  endif()
endforeach()
if(NOT arch_names)
  message(FATAL_ERROR "BANTAM_CUDA_ARCHS=${BANTAM_CUDA_ARCHS}: nvcc knows none of them (-DBANTAM_CUDA=OFF builds without kernels)")
endif()

# bantam_share_front_end(list virtual code...): the gencode options of the codes in `list` become one, so that nvcc's
# front end, more than half of the time, goes through a file once for all of them.
function(bantam_share_front_end list virtual)
  set(options ${${list}})
  set(codes)
  foreach(code IN LISTS ARGN)
    string(REGEX REPLACE "^(sm|compute)_" "" number ${code})
    set(option -gencode=arch=compute_${number},code=${code})
    if(option IN_LIST options)
      list(APPEND codes ${code})
      list(REMOVE_ITEM options ${option})
    endif()
  endforeach()
  list(LENGTH codes n)
  if(n GREATER 1)
    list(JOIN codes "," codes)
    set(${list} ${options} "-gencode=arch=compute_${virtual},code=[${codes}]" PARENT_SCOPE)
  endif()
endfunction()

# The front end makes the same PTX for sm_80 and sm_86; for sm_89 too where nothing is converted to e4m3, and for sm_90 and
# sm_90a where there is no wgmma: of all files but those in BANTAM_CUDA_E4M3 and BANTAM_CUDA_WGMMA. One that is missing there
# does not compile: ptx_device.h, ptx_wgmma.h.
set(BANTAM_CUDA_E4M3 activation.cu attention_e4m3.cu kv.cu linear_e4m3.cu norm.cu quantize_rows.cu
  number_kernels.cu product_kernels.cu dump_fragments.cu)
set(BANTAM_CUDA_WGMMA attention_wgmma.cu linear_e4m3.cu linear_wgmma.cu linear_wgmma_wide.cu product_kernels.cu dump_fragments.cu)

set(BANTAM_CUDA_MACHINE_TARGETS ${arch_names})
list(FILTER BANTAM_CUDA_MACHINE_TARGETS INCLUDE REGEX "^sm_")
string(JOIN " " arch_names ${arch_names})
set(BANTAM_CUDA_TARGETS ${arch_names})
message(STATUS "nvcc: ${BANTAM_NVCC} for ${arch_names}; cuBLASLt headers: ${BANTAM_HAS_CUBLASLT}, NCCL headers: ${BANTAM_HAS_NCCL}")

# As for C: a fused multiply-add happens only where the code says so.
set(BANTAM_NVCC_FLAGS -std=c++17 -O3 --fmad=false -lineinfo -Xptxas=-v -Xcompiler=-fPIC,-Wall,-Wextra -I${CMAKE_SOURCE_DIR})

function(bantam_cuda_objects out)
  set(objects)
  foreach(source IN LISTS ARGN)
    get_filename_component(path ${source} ABSOLUTE)
    get_filename_component(name ${source} NAME)
    set(gencode ${BANTAM_CUDA_GENCODE})
    if(name IN_LIST BANTAM_CUDA_E4M3)
      bantam_share_front_end(gencode 80 sm_80 sm_86)
    else()
      bantam_share_front_end(gencode 80 sm_80 sm_86 sm_89)
      list(APPEND gencode -DPTX_WITHOUT_E4M3)
    endif()
    if(NOT name IN_LIST BANTAM_CUDA_WGMMA)
      bantam_share_front_end(gencode 90 compute_90 sm_90a)
      list(APPEND gencode -DPTX_WITHOUT_WGMMA)
    endif()
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
    set(logged ${CMAKE_SOURCE_DIR}/cmake/logged_command.cmake)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_COMMAND} -DLOG=${object}.ptxas -P ${logged} --
        ${BANTAM_NVCC} ${BANTAM_NVCC_FLAGS} ${gencode} -MD -MF ${object}.d -c ${path} -o ${object}
      DEPENDS ${path} ${logged} DEPFILE ${object}.d COMMENT "Compiling ${name} for ${arch_names}" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()
