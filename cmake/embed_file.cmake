# cmake -DIN=file -DOUT=file.c -DNAME=name -DHEADER=header -P embed_file.cmake: the bytes of IN as
# const uint8_t NAME[] and const size_t NAME_bytes, which HEADER declares.
file(READ ${IN} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "#include \"${HEADER}\"\n\nconst uint8_t ${NAME}[] = {\n${bytes}\n};\nconst size_t ${NAME}_bytes = ${size};\n")
