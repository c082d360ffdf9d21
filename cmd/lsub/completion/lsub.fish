# Completion of lsub for fish: lsub completion fish > ~/.config/fish/completions/lsub.fish
function __lsub_complete
    set -l words (commandline -opc)[2..-1] (commandline -ct)
    for line in (lsub complete -- $words 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
            return
        end
        echo $line
    end
end
complete -c lsub -f -k -a '(__lsub_complete)'
