class Lsub < Formula
  desc {{q .Summary}}
  homepage {{q .Homepage}}
  version {{q .Version}}
  license {{q .License}}
{{- with $a := .Assets}}
{{- if or $a.darwin_arm64 $a.darwin_amd64}}

  on_macos do
    depends_on macos: :ventura
{{- with $a.darwin_arm64}}
    on_arm do
      url {{q .URL}}
      sha256 {{q .SHA256}}
    end
{{- end}}
{{- with $a.darwin_amd64}}
    on_intel do
      url {{q .URL}}
      sha256 {{q .SHA256}}
    end
{{- end}}
  end
{{- end}}
{{- if or $a.linux_arm64 $a.linux_amd64}}

  on_linux do
    depends_on "qemu"
{{- with $a.linux_arm64}}
    on_arm do
      url {{q .URL}}
      sha256 {{q .SHA256}}
    end
{{- end}}
{{- with $a.linux_amd64}}
    on_intel do
      url {{q .URL}}
      sha256 {{q .SHA256}}
    end
{{- end}}
  end
{{- end}}
{{- end}}

  def install
    bin.install "lsub"
    man1.install "lsub.1"
    bash_completion.install "completions/lsub.bash" => "lsub"
    fish_completion.install "completions/lsub.fish"
    zsh_completion.install "completions/lsub.zsh" => "_lsub"
  end

  test do
    assert_match "lsub #{version} ", shell_output("#{bin}/lsub version")
  end
end
