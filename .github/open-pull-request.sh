#!/usr/bin/env bash
# Commits what changed below charts/envs to a branch and opens a pull request whose text is the change.
# open-pull-request.sh BRANCH TITLE DIFF
set -euo pipefail
branch=$1 title=$2 diff=$3
if git diff --quiet -- charts/envs; then
  echo "Nothing to change: the environment runs that already."
  exit 1
fi
git config user.name isa-promotion
git config user.email promotion@isa-cloud.invalid
git switch --create "$branch"
git commit --quiet --message "$title" -- charts/envs
git push --quiet --force origin "$branch"
{
  echo "Revert this to go back."
  echo
  echo '```diff'
  cat "$diff"
  echo '```'
} | gh pr create --base main --head "$branch" --title "$title" --body-file -
