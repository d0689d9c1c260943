"""Writes a C file with the migrations: embed_migrations.py OUTPUT INPUT..."""
import hashlib
import pathlib
import sys

output, *inputs = map(pathlib.Path, sys.argv[1:])
rows = []
last = 0
for path in sorted(inputs, key=lambda path: path.name):
    number = int(path.name.split("_")[0])
    if number != last + 1:
        sys.exit(f"{path.name}: migrations are numbered without a gap; {last:04} was the last")
    last = number
    data = path.read_bytes()
    text = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
                   for byte in data)
    lines = "\n".join(f'     "{text}"' for text in
                      (line + "\\012" for line in text.split("\\012") if line))
    rows.append(f'    {{{number}, "{path.stem}",\n{lines},\n'
                f'     "{hashlib.sha256(data).hexdigest()}"}},\n')
output.write_text('#include "registry/migrations.h"\n\n'
                  'const struct migration migrations[] = {\n' + "".join(rows) + "};\n"
                  f"const unsigned migration_count = {len(rows)};\n")
