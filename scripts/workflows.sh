#!/usr/bin/env bash
# Whether the workflows of .github/ are what GitHub takes (actionlint, and shellcheck on what they run), whether each action
# is pinned by its commit with its version beside it, and whether what they name is there. With check-jsonschema in PATH
# (`pip install check-jsonschema`) dependabot's file and the issue forms are held against their schemas as well.
#
# actionlint is built from its Go module where it is not in PATH. Exit status 3: it cannot be had, and only the rest was
# checked.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh
. scripts/go-tools.sh

# A tag can be moved to other code by whoever gets hold of the action's repository.
loose=$(grep --line-number --extended-regexp '^ *-? *uses:' .github/workflows/*.yaml |
    grep --invert-match --extended-regexp 'uses: [a-zA-Z0-9/_-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$') || true
[ -z "$loose" ] || die "not pinned by commit, or without its version:
$loose"
# One version of each.
twice=$(grep --no-filename --only-matching --extended-regexp 'uses: .*' .github/workflows/*.yaml | sort --unique |
    sed 's/@.*//' | uniq --repeated)
[ -z "$twice" ] || die "in two versions: $twice"
while read -r script; do
    [ -f "$script" ] || die "a workflow names $script, which is not there"
done < <(grep --no-filename --only-matching --extended-regexp 'scripts/[a-z-]+\.sh' .github/workflows/*.yaml | sort --unique)

need_packages shellcheck
actionlint=$(tool actionlint)
"$actionlint" -color=false .github/workflows/*.yaml
if command -v check-jsonschema >/dev/null; then
    check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml >&2
    check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml >&2
    check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/{bug,feature}.yml >&2
else
    say "no check-jsonschema: dependabot.yml and the issue forms were not read"
fi
say "$(find .github/workflows -name '*.yaml' | wc -l) workflows: actionlint finds no fault, every action is pinned"
