# House functions: one target per folder, private include paths, generated protobuf-c code.

function(pm_toolchain)
    set(CMAKE_C_STANDARD 11 PARENT_SCOPE)
    set(CMAKE_C_EXTENSIONS ON PARENT_SCOPE)
    set(CMAKE_C_STANDARD_REQUIRED ON PARENT_SCOPE)
    set(CMAKE_POSITION_INDEPENDENT_CODE ON PARENT_SCOPE)
    if(NOT CMAKE_BUILD_TYPE)
        set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
    endif()
    # Contraction would let the compiler choose where to round, and the bits are part of the contract. Messages are
    # cut at their bound on purpose, hence no format-truncation.
    add_compile_options(-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
                        -Wpointer-arith -Wwrite-strings -fno-math-errno -ffp-contract=off -g
                        $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>)
    add_compile_definitions(_GNU_SOURCE)
    if(PM_SANITIZE)
        add_compile_options(-fsanitize=${PM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
        add_link_options(-fsanitize=${PM_SANITIZE})
    endif()
    if(PM_FUZZ)
        add_compile_options(-fsanitize=fuzzer-no-link)
    endif()
    find_program(PM_CCACHE ccache)
    if(PM_CCACHE)
        set(CMAKE_C_COMPILER_LAUNCHER ${PM_CCACHE} PARENT_SCOPE)
    endif()
endfunction()

# pm_room(NAME SOURCES a.c … DEPS rooms-or-libraries …)
# Makes the static library pm_NAME. Headers are included as "NAME/file.h" and are found only by targets that
# link the room: the include path is a folder that holds nothing but a link to it.
function(pm_room name)
    cmake_parse_arguments(ROOM "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
    set(farm ${CMAKE_BINARY_DIR}/include/${name})
    file(MAKE_DIRECTORY ${farm})
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${farm}/${name} SYMBOLIC)
    add_library(pm_${name} STATIC ${ROOM_SOURCES})
    target_include_directories(pm_${name} PUBLIC ${farm})
    target_link_libraries(pm_${name} PUBLIC ${ROOM_DEPS} PRIVATE ${ROOM_PRIVATE_DEPS})
endfunction()

# The rooms that exist, lowest last, for programs that link everything.
set(PM_ROOMS infer worker ps cluster snapshot model net proto core)
